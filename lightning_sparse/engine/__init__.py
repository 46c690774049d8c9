"""Sparse training itself: masks, scores, schedules, allocation and the update, on any module and torch optimizer."""
