"""Alerts: what people are told of without having to look (docs/alerts.md)."""
