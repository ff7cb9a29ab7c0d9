-- copy_rest: reads, for a backup, all that has changed since it was copied, and the keys that must fit to it: all of it
-- as it is at one moment, which is the moment that the backup shows.
-- KEYS  namespace
-- ARGV  since (the last event that was read), how many events at most, how many ids follow, these, then names of keys
-- RETURNS {"ok", NOW, the last event, {tasks as copy_tasks has them}, {keys as copy_keys has them}}
--         | {"more"}, where more has happened since | {"gap"}, where events since then have been dropped
local since, most, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if since ~= "0-0" and #redis.call("XRANGE", key("events"), since, since) == 0 then return {"gap"} end
local events = redis.call("XRANGE", key("events"), "(" .. since, "+", "COUNT", most)
if #events >= most then return {"more"} end
local ids, seen = {}, {}
local function take(id)
  if not seen[id] then
    seen[id] = true
    ids[#ids + 1] = id
  end
end
for i = 4, 3 + count do take(ARGV[i]) end
for _, event in ipairs(events) do
  local fields = event[2]
  for i = 1, #fields, 2 do
    if fields[i] == "id" or fields[i] == "task" then take(fields[i + 1]) end
  end
end
local tasks, keys = {}, {}
for _, id in ipairs(ids) do copy_task(id, tasks) end
for i = 4 + count, #ARGV do copy_key(ARGV[i], keys) end
return {"ok", NOW, #events > 0 and events[#events][1] or since, tasks, keys}
