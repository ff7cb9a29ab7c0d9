-- note_alerts: what has become of alerts since they were looked at: each as it is now, with what is to be told of it.
-- KEYS  namespace
-- ARGV  changes (JSON list of {name, before, after, event, act, notices}), how many alerts are kept, how many acts,
--       silences that are over (JSON list of {name, before})
--       before, after: its record as it was read, and as it is now ("": there is none). event, act: fields and values, []
--       where it has neither begun nor ended. notices: id and record in turn, for each receiver that is to be told.
-- RETURNS {"ok", name, …}: of those that were as they had been read; the others somebody else has seen to.
local changes, kept, acts_kept = cjson.decode(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {"ok"}
for _, change in ipairs(changes) do
  local now = redis.call("HGET", key("alerts"), change.name) or ""
  local is_room = now ~= "" or change.after == "" or redis.call("HLEN", key("alerts")) < kept
  if now == change.before and is_room then
    if change.after == "" then
      redis.call("HDEL", key("alerts"), change.name)
    else
      redis.call("HSET", key("alerts"), change.name, change.after)
    end
    if #change.event > 0 then emit("note_alerts", change.event) end
    if #change.act > 0 then redis.call("XADD", key("acts"), "MAXLEN", "~", acts_kept, "*", unpack(change.act)) end
    if #change.notices > 0 then redis.call("HSET", key("notices"), unpack(change.notices)) end
    answer[#answer + 1] = change.name
  end
end
for _, over in ipairs(cjson.decode(ARGV[4])) do
  if redis.call("HGET", key("silences"), over.name) == over.before then redis.call("HDEL", key("silences"), over.name) end
end
return answer
