-- silence_alert: somebody wants to hear nothing of a rule for a while, or of what it says of one subject; or again.
-- KEYS  namespace
-- ARGV  name ("rule" or "rule/subject"), record (JSON without its times; "": that is over), ms, how many are kept
-- RETURNS {"ok", until ms} | {"missing"} (nothing is silenced so) | {"full"}
local name, record, ms, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local book = key("silences")
local before = redis.call("HGET", book, name) or ""
local made = ""
if record == "" then
  if before == "" then return {"missing"} end
  redis.call("HDEL", book, name)
else
  if before == "" and redis.call("HLEN", book) >= kept then return {"full"} end
  local told = cjson.decode(record)
  told.at_ms, told.until_ms = NOW, NOW + ms
  made = cjson.encode(told)
  redis.call("HSET", book, name, made)
end
keep_for_undo("silence " .. name, {before = before, made = made})
emit("silence_alert", {"alert", name, "for_ms", made == "" and 0 or ms})
return {"ok", NOW + ms}
