-- isolate_node: a node whose record cannot be what was written has to say hello again; its leases stay.
-- KEYS  namespace
-- ARGV  node, what was found
-- RETURNS {"ok"} | {"missing"}
local node, found = unpack(ARGV)
local record = load_hash(key("node", node))
if not record then return {"missing"} end
isolate_damaged_node(node, record, found)
return {"ok"}
