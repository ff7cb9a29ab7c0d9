-- retake_task: PENDING, QUEUED or PROCESSING -> PROCESSING. A node has finished an attempt that was taken back from it,
-- or that it is not sure of: where its result still counts (as in finish_task), the task is its own, so that the result
-- can get its name before it is told. Of an attempt that was taken back that is a new one, which has just that to do.
-- KEYS  namespace
-- ARGV  id, attempt, node, boot, lease_ms
-- RETURNS {"ok", attempt (under which it is to be told), lease_ms} | {"missing"} | {"refused", status}
--         | {"stale"} (a newer boot has taken this node's name)
-- No earlier attempt counts from now on, nor the one that ran: else it could commit between the answer and the name.
local id, n, node, boot, lease_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
for _, old in ipairs(decoded(redis.call("HGET", key("node", node), "retired"), {})) do
  if old == boot then return {"stale"} end
end
local t = load_task(id)
if not t then return {"missing"} end
local record = attempt_record(id, n)
if record and record.outcome ~= "damaged" and record.node ~= node then record = nil end
if TERMINAL[t.status] or not record then return {"refused", t.status} end

local last, fence = number(t.attempt), number(t.fence)
if t.status == STATE.PROCESSING and t.node == node and (n == last or whose_result(id, last) == n) then  -- it is already
  local deadline = NOW + number(t.lease_ms)
  redis.call("ZADD", key("leases"), deadline, id)
  redis.call("HSET", key("task", id), "deadline_ms", deadline)
  return {"ok", last, number(t.lease_ms)}
end
-- The fence is an operator's, or that of an earlier call of this for the same result, of which the node has not heard.
if n <= fence and whose_result(id, fence + 1) ~= n then return {"refused", t.status} end

tally("late", 1)
local more = {"late", "1"}
if t.status == STATE.PROCESSING then
  close_attempt(id, last, "superseded")
  -- Told at once: until it is, the node may put a result of its own into the place of this one.
  for _, word in ipairs({"from", t.node, "superseded", t.attempt}) do more[#more + 1] = word end
end
local fresh = {number = last + 1, node = node, device = record.device or "", started_ms = NOW, outcome = "running",
  result_of = whose_result(id, n) or n}
for _, field in ipairs({"cost", "megapixels", "warm", "predicted_s", "predicted_p90_s", "predicted_mib", "eased"}) do
  fresh[field] = record[field]
end
redis.call("RPUSH", key("attempts", id), cjson.encode(fresh))
transition("retake_task", id, t, STATE.PROCESSING, {
  attempt = fresh.number, fence = last, node = node, boot = boot, device = fresh.device, started_ms = NOW,
  lease_ms = lease_ms, deadline_ms = NOW + lease_ms, ends_ms = NOW, progress = "1", stage = "report", avoid = false,
  due_ms = false, why = "late result of attempt " .. fresh.result_of,
}, more)
return {"ok", fresh.number, lease_ms}
