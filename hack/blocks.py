"""Generated blocks of pages, which stand between two comments that name the command that writes them."""

import re
from collections.abc import Callable, Mapping


def fill(page: str, blocks: Mapping[str, Callable[[], str]], *, command: str) -> str:
    """Return a page with the current content in each of its generated blocks.

    Args:
        page: The page in Markdown.
        blocks: The generator of each block, by the block's name.
        command: The command that writes them; blocks of others stay.
    """
    begin = rf"(?P<begin><!-- begin (?P<name>[a-z-]+): written by {re.escape(command)} -->\n)"
    pattern = re.compile(rf"{begin}.*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found['begin']}\n{blocks[found['name']]()}\n\n{found['end']}", page)
