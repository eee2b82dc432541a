"""The pure core of schedules: when they fire, what becomes of each time, what follows. No input or output, no clock, no chance."""
