-- fail_task: PROCESSING -> PENDING, QUEUED or FAILED, by the class of the failure.
-- KEYS  namespace
-- ARGV  id, attempt, node, failure (JSON {error_class, code, message}), rule (JSON, see fail_attempt),
--       log (what the runner said last)
-- RETURNS {"ok", status, how much the device is to blame, "1" if it is on probation} | {"again"} | {"missing"} | {"fenced", status}
local id, n, node = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local failure, rule = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local t = load_task(id)
if not t then return {"missing"} end
if t.status ~= STATE.PROCESSING or n ~= number(t.attempt) or t.node ~= node then
  local record = attempt_record(id, n)
  if record and record.node == node and record.outcome == "failed" and (record.failure or {}).code == failure.code then
    return {"again"}
  end
  correct_bill(id, n, node, failure, rule.paid)
  tally("fenced", 1)
  return {"fenced", t.status}
end
local device = t.device or ""
if rule.is_short then  -- it ran out of memory: what comes next is to know at once
  local record = attempt_record(id, n)
  if record and record.cost and not record.eased then
    learn_memory(record, rule.peak_mib, rule.device_peak_mib, true)
    note_cost(record.cost)
  end
end
local blame = fail_attempt("fail_task", id, t, failure, rule, ARGV[6])
local probation = redis.call("HMGET", key("node", node), "probation", of("probation", device))
local on_probation = blame > 0 and (probation[1] or probation[2])
return {"ok", t.status, tostring(blame), on_probation and "1" or "0"}
