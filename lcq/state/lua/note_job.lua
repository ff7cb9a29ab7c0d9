-- note_job: what a submit of the job has skipped, and why, is kept with the job, for its report.
-- KEYS  namespace
-- ARGV  job, skipped (JSON)
-- RETURNS {"ok"} | {"missing"}
local job, skipped = unpack(ARGV)
if not redis.call("ZSCORE", key("jobs"), job) then return {"missing"} end
redis.call("HSET", key("job", job), "skipped", skipped)
return {"ok"}
