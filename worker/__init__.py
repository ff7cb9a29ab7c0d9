"""The compute host's side: the agent, its runners, the engines."""
