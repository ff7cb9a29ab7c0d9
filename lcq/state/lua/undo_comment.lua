-- undo_comment: a note that a command has left with a task is taken away again, whatever has happened to the task since.
-- KEYS  namespace
-- ARGV  id, the command that is taken back
-- RETURNS {"ok"} | {"missing"} | {"nothing"} (of that command, or too late)
local id, command = unpack(ARGV)
if redis.call("HDEL", undo_key(command), "comment " .. id) == 0 then return {"nothing"} end
local t = load_task(id)
if not t then return {"missing"} end
local left = {}
for _, note in ipairs(decoded(t.notes, {})) do
  if note.command ~= command then left[#left + 1] = note end
end
if #left > 0 then
  redis.call("HSET", key("task", id), "notes", cjson.encode(left))
else
  redis.call("HDEL", key("task", id), "notes")
end
emit("undo_comment", {"task", id})
return {"ok"}
