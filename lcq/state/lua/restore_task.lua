-- restore_task: puts a task of a backup back, with all its indexes made anew. One that ran is handed back, at no cost: no
-- node holds it.
-- KEYS  namespace
-- ARGV  id, fields (JSON: {field, value, …}), attempts (JSON list of records, each as text)
-- RETURNS {"ok", status} | {"again"} (it is there)
local id, flat, attempts = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
if redis.call("EXISTS", key("task", id)) == 1 then return {"again"} end
local t = {}
for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
if #attempts > 0 then redis.call("RPUSH", key("attempts", id), unpack(attempts)) end
for n = 1, #attempts do
  local node = attempt_record(id, n).node or ""
  if node ~= "" then redis.call("ZADD", key("ix", "node", node), 0, id) end
end
local ran = t.status == STATE.PROCESSING
if ran then
  close_attempt(id, number(t.attempt), "handed_back")
  for field, value in pairs(ended({queued_ms = NOW, updated_ms = NOW, status = STATE.QUEUED, rev = number(t.rev) + 1,
      why = "ran when the backup was made that the state was restored from"})) do
    if value == false then t[field] = nil else t[field] = tostring(value) end
  end
  rank_again(t, "restore_task")
  t.waits_ms = waits_ms(t)
end
-- What waited aside was off its user's book, and goes off it again where it still has to wait so (enter_lane).
if t.aside and t.status == STATE.QUEUED then charge(t, share_of(t)) end
t.aside, t.back = nil, nil
local fields = {}
for field, value in pairs(t) do
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
redis.call("HSET", key("task", id), unpack(fields))
redis.call("SET", key("idem", t.idem), id)
redis.call("ZADD", key("ids"), 0, id)
if (t.job or "") ~= "" then
  redis.call("ZADD", key("ix", "job", t.job), 0, id)
  redis.call("ZADD", key("jobs"), "NX", t.submitted_ms, t.job)
end
enter_indexes(id, t)
if ran then emit_task("release_task", id, t) end
return {"ok", t.status}
