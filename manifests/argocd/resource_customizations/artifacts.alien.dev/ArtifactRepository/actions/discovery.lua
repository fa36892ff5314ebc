-- The operator does not contact the registry for a suspended object, so there is nothing to reconcile.
local suspended = obj.spec.suspend == true
return {
  reconcile = {disabled = suspended},
  suspend = {disabled = suspended},
  resume = {disabled = not suspended},
}
