-- comment_task: a note for people is kept with a task. Its state and its revision stay as they are, so that nobody's act
-- is refused for a remark.
-- KEYS  namespace
-- ARGV  id, actor, text, how many notes are kept with a task: the newest
-- RETURNS {"ok"} | {"missing"}
local id, actor, text, kept = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
local notes = decoded(t.notes, {})
local command = KEYS[2] and KEYS[2]:match("([^:]+)$") or ""
notes[#notes + 1] = {at_ms = NOW, actor = actor, text = text, command = command}
while #notes > tonumber(kept) do table.remove(notes, 1) end
redis.call("HSET", key("task", id), "notes", cjson.encode(notes))
keep_for_undo("comment " .. id, {})
emit("comment_task", {"task", id, "actor", actor, "note", text})
return {"ok"}
