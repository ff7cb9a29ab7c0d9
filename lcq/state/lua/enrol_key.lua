-- enrol_key: a key may connect from now on, or is invited to have another one enrolled.
-- KEYS  namespace
-- ARGV  key, its record (JSON), how ("new": also one that was revoked; "owner": only one that was never there), how many
--       there may be at most
-- RETURNS {"ok", record} | {"known", record} | {"taken", name or node, record of who has it} | {"full"}
local id, made, how, most = unpack(ARGV)
local book, record = key("access"), cjson.decode(made)
local before = decoded(redis.call("HGET", book, id) or "", nil)
if before and (how == "owner" or number(tostring(before.revoked_ms or 0)) == 0) then
  return {"known", redis.call("HGET", book, id)}
end
forget_keys(book)
local other = holder_of(book, id, record)
if other then return {"taken", record.node ~= "" and record.node or record.name, other} end
if redis.call("HLEN", book) >= tonumber(most) then return {"full"} end
record.at_ms = NOW
if record.until_ms and record.until_ms > 0 then record.until_ms = NOW + record.until_ms end  -- told as a span
local text = cjson.encode(record)
redis.call("HSET", book, id, text)
emit("enrol_key", {"key", id, "name", record.name, "role", record.role, "why", record.by or ""})
return {"ok", text}
