"""Contract that every registry must fulfil, run on the fake and on real registries."""
