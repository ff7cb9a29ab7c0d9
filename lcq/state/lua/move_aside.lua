-- move_aside: a part of the way through a job that was paused or resumed: its waiting tasks leave their lanes, or come
-- back in their old places. Where it has got to is kept, so that whoever does the next part goes on from there.
-- KEYS  namespace
-- ARGV  job, limit (tasks that are looked at), most (that are moved), ms (of processor time, after which it stops)
-- RETURNS {"ok", tasks moved, "1" if that was the last part}
local job, limit, most, ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local after = redis.call("HGET", key("walks"), job)
if not after then return {"ok", 0, "1"} end
-- A script's TIME stands still in newer servers, which have os.clock() instead; older ones have neither.
local _, clock = pcall(function() return os.clock end)
local began = type(clock) == "function" and clock()
local ids = redis.call("ZRANGEBYLEX", key("ix", "job", job), after == "" and "-" or "(" .. after, "+", "LIMIT", 0, limit)
local is_paused = redis.call("HEXISTS", key("paused"), job) == 1
local NAMES = {"status", "queue", "pinned", "model", "lane", "score", "queued_ms", "priority", "user", "cost", "aside", "weight",
  "place", "back", "waits_ms"}
local moved, last = 0, 0
for place, id in ipairs(ids) do
  if moved >= most or (moved > 0 and began and (clock() - began) * 1000 > ms) then break end
  last = place
  local fields, t = read_fields(key("task", id), unpack(NAMES)), {job = job}
  for i, name in ipairs(NAMES) do t[name] = fields[i] or nil end
  if t.status == STATE.QUEUED and t.queue and t.model and t.score and t.queued_ms and t.priority and t.user then
    if is_paused and not t.aside and is_in(lane_of(t), id) then  -- else it is damaged: found out where it is met
      put_aside(id, t)
      moved = moved + 1
    elseif not is_paused and t.aside and is_in(key("aside", t.queue), id) then
      bring_back(id, t)
      moved = moved + 1
    end
  end
end
local is_last = last == #ids and #ids < limit
if is_last then redis.call("HDEL", key("walks"), job) else redis.call("HSET", key("walks"), job, ids[last]) end
if moved > 0 and not is_paused then emit("move_aside", {"job", job, "count", moved}) end
return {"ok", moved, is_last and "1" or "0"}
