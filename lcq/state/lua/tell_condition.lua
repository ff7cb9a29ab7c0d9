-- tell_condition: a scheduler says how it is, for who looks after all of them.
-- KEYS  namespace
-- ARGV  scheduler, its condition (JSON), for how many ms that counts
-- RETURNS {"ok"}
redis.call("SET", key("condition", ARGV[1]), ARGV[2], "PX", ARGV[3])
return {"ok"}
