-- accept_invitation: the key of a token has another one enrolled in its place, once.
-- KEYS  namespace
-- ARGV  key of the token, key to enrol, name, node (of an agent)
-- RETURNS {"ok", record} | {"unknown"} | {"used", record of who did} | {"expired", when} | {"taken", name or node, record}
local token, id, name, node = unpack(ARGV)
local book = key("access")
local invitation = decoded(redis.call("HGET", book, token) or "", nil)
if not invitation or invitation.role ~= "invited" or number(tostring(invitation.revoked_ms or 0)) > 0 then
  return {"unknown"}
end
if (invitation.used_by or "") ~= "" then
  local made = redis.call("HGET", book, invitation.used_by) or ""
  return {invitation.used_by == id and "ok" or "used", made}
end
if number(tostring(invitation.until_ms)) <= NOW then return {"expired", tostring(invitation.until_ms)} end
local record = {key = id, name = name, role = invitation.becomes, node = node, at_ms = NOW, by = invitation.by or ""}
if (invitation.node or "") ~= "" then record.node, record.name = invitation.node, invitation.node end
local other = holder_of(book, id, record)
if other then return {"taken", record.node ~= "" and record.node or record.name, other} end
invitation.used_by = id
local text = cjson.encode(record)
redis.call("HSET", book, token, cjson.encode(invitation), id, text)
emit("accept_invitation", {"key", id, "name", record.name, "role", record.role, "why", record.by})
return {"ok", text}
