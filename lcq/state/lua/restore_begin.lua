-- restore_begin: closes a namespace to all schedulers while a backup is put into it; until restore_end each of them is
-- refused, because the state's format is none that it knows.
-- KEYS  namespace
-- ARGV  since when, in words
-- RETURNS {"ok"} | {"alive", scheduler}
for name, text in pairs(load_hash(key("schedulers")) or {}) do
  if (tonumber(text:match("^%d+")) or 0) >= NOW then return {"alive", name} end
end
redis.call("SET", key("format"), "restoring " .. ARGV[1])
return {"ok"}
