-- undo_acknowledgement: what a command has made known of a cause of failures, or withdrawn, is as it was before, if
-- nobody has said anything of it since.
-- KEYS  namespace
-- ARGV  the cause ("code: text"), the command that is taken back
-- RETURNS {"ok"} | {"nothing"} (of that command, or too late) | {"moved_on", by whom ("": it is open again)}
local name, command = unpack(ARGV)
local entry = decoded(redis.call("HGET", undo_key(command), "cause " .. name), nil)
if not entry then return {"nothing"} end
local now = redis.call("HGET", key("acks"), name) or ""
if now ~= entry.made then return {"moved_on", tostring(decoded(now, {}).actor or "")} end
redis.call("HDEL", undo_key(command), "cause " .. name)
if entry.before == "" then
  redis.call("HDEL", key("acks"), name)
else
  redis.call("HSET", key("acks"), name, entry.before)
end
return {"ok"}
