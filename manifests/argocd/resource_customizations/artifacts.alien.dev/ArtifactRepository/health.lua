-- Healthy means that one can push, not that an image is there.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready

if ready == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "Waiting for the operator"}
end

-- An outage that may pass is no failure: Degraded would end the sync.
local health = "Progressing"
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  health = "Degraded"
elseif ready.status == "True" then
  health = "Healthy"
elseif obj.spec.suspend then
  health = "Suspended"
end
return {status = health, message = ready.message}
