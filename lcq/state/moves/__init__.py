"""Every move of the state as a call: one Lua script each, all or nothing."""
