-- note_act: an operator's act goes to the audit stream, and its answer is kept for a copy that comes later.
-- KEYS  namespace
-- ARGV  command_id, answer, keep_ms, how many acts are kept, then the act's fields and values
-- RETURNS {"ok"}
local command_id, answer, keep_ms, kept = unpack(ARGV)
redis.call("XADD", key("acts"), "MAXLEN", "~", kept, "*", unpack(ARGV, 5))
redis.call("SET", key("answer", command_id), answer, "PX", keep_ms)
redis.call("DEL", key("did", command_id))
return {"ok"}
