-- note_upkeep: keeps how one of the cluster's timed duties for its operators (backup, archive) went last; tells it once.
-- KEYS  namespace
-- ARGV  duty, what went wrong ("": nothing), more of it (JSON)
-- RETURNS {"ok"}
local duty, found = ARGV[1], ARGV[2]
local before = decoded(redis.call("HGET", key("upkeep"), duty), {})
local now = decoded(ARGV[3], {})
for name, value in pairs(before) do
  if now[name] == nil and name ~= "error" and name ~= "since_ms" then now[name] = value end
end
now.at_ms, now.error = NOW, found
if found ~= "" then now.since_ms = (before.error or "") ~= "" and before.since_ms or NOW end
redis.call("HSET", key("upkeep"), duty, cjson.encode(now))
if found ~= (before.error or "") then emit("note_upkeep", {"duty", duty, "why", found}) end
return {"ok"}
