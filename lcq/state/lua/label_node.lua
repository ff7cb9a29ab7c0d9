-- label_node: what tasks may require of a node, over the labels that its agent tells, by an operator's wish, which
-- holds until it is taken back: also over restarts of the agent.
-- KEYS  namespace
-- ARGV  node, labels to set (JSON, name -> value; null: taken away), names whose own value counts again (JSON list), why
-- RETURNS {"ok"} | {"missing"}
local node, labels, forgotten, why = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), ARGV[4]
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
local relabelled = decoded(record.relabelled, {})
for label, value in pairs(labels) do relabelled[label] = value end
for _, label in ipairs(forgotten) do relabelled[label] = nil end
if next(relabelled) then
  redis.call("HSET", name, "relabelled", cjson.encode(relabelled))
else
  redis.call("HDEL", name, "relabelled")
end
emit("label_node", {"node", node, "status", shown_status(record), "why", record.why or "", "reason", why})
return {"ok"}
