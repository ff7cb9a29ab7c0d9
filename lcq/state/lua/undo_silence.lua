-- undo_silence: what a command has silenced, or has let be heard again, is as it was before, if nobody has said anything of
-- it since.
-- KEYS  namespace
-- ARGV  name ("rule" or "rule/subject"), the command that is taken back
-- RETURNS {"ok"} | {"nothing"} (of that command, or too late) | {"moved_on", by whom ("": it is not silenced any more)}
local name, command = unpack(ARGV)
local entry = decoded(redis.call("HGET", undo_key(command), "silence " .. name), nil)
if not entry then return {"nothing"} end
local now = redis.call("HGET", key("silences"), name) or ""
if now ~= entry.made then return {"moved_on", tostring(decoded(now, {}).actor or "")} end
redis.call("HDEL", undo_key(command), "silence " .. name)
if entry.before == "" then
  redis.call("HDEL", key("silences"), name)
else
  redis.call("HSET", key("silences"), name, entry.before)
end
emit("silence_alert", {"alert", name})
return {"ok"}
