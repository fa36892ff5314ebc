-- The operator verifies the repository at once, and repeats the value in status.lastHandledReconcileAt.
local os = require("os")
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["artifacts.alien.dev/requestedAt"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
