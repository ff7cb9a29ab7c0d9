"""What lcq doctor looks at, and what it makes of that: each finding with its level, its code and its remedy."""
