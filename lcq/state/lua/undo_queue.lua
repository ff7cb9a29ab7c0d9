-- undo_queue: a pause or a resumption of a queue is taken back, if nobody has paused or resumed it since.
-- KEYS  namespace
-- ARGV  queue, why, the command that is taken back
-- RETURNS {"ok"} | {"nothing"} (of that command, or too late) | {"moved_on", "paused" | "open", by whom}
local queue, why, command = unpack(ARGV)
local entry = decoded(redis.call("HGET", undo_key(command), "queue " .. queue), nil)
if not entry then return {"nothing"} end
local now = load_hash(key("queue", queue)) or {}
if (now.paused_ms or "") ~= entry.paused_ms then
  return {"moved_on", now.paused == "1" and "paused" or "open", now.paused_by or ""}
end
redis.call("HDEL", undo_key(command), "queue " .. queue)
redis.call("HDEL", key("queue", queue), "paused", "paused_by", "paused_reason", "paused_ms")
for field, value in pairs(entry.before) do redis.call("HSET", key("queue", queue), field, value) end
emit(entry.before.paused and "pause_queue" or "resume_queue", {"queue", queue, "why", why})
return {"ok"}
