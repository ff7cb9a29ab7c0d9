-- account_tasks: counts, for reports, what tasks that have ended have used. Each of their attempts and ends counts once.
-- KEYS  namespace
-- ARGV  limit, prices (JSON: nodes {name: price}, labels [[name, value, price]], gpus [[part of its name, price]], gpu, cpu),
--       how many seconds a day's counters are kept
-- RETURNS {"ok", how many were looked at}
local ids = redis.call("LPOP", key("unbilled"), tonumber(ARGV[1])) or {}
local prices, known, sums, days, marks = cjson.decode(ARGV[2]), {}, {}, {}, {}
for _, id in ipairs(ids) do
  local told = read_fields(key("task", id), "status", "attempt", "finished_ms", "updated_ms", "billed", "user", "job", "model",
    "node", "result")
  local t = {status = told[1], attempt = told[2], finished_ms = told[3] or nil, updated_ms = told[4] or "0",
    billed = told[5] or nil, user = told[6], job = told[7], model = told[8], node = told[9], result = told[10]}
  if t.status and TERMINAL[t.status] and t.attempt and not marks[id] then
    bill(id, t, prices, known, sums, days)
    marks[id] = billed_mark(t)
  end
end
keep_usage(sums, days, tonumber(ARGV[3]))
for id, mark in pairs(marks) do redis.call("HSET", key("task", id), "billed", mark) end
return {"ok", #ids}
