-- copy_tasks: reads the records of tasks whole, for a backup: a page of all there are, or some by their ids.
-- KEYS  namespace
-- ARGV  after (id; "": from the first one), limit, then ids; with ids after and limit count for nothing
-- RETURNS {"ok", then of each: id, {field, value, …} (empty: it is not there), {attempt, …}}
local ids = {unpack(ARGV, 3)}
if #ids == 0 then
  local from = ARGV[1] == "" and "-" or ("(" .. ARGV[1])
  ids = redis.call("ZRANGEBYLEX", key("ids"), from, "+", "LIMIT", 0, tonumber(ARGV[2]))
end
local answer = {"ok"}
for _, id in ipairs(ids) do copy_task(id, answer) end
return answer
