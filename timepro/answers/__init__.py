"""How answers are read: `parse` decides, with one module a shape of answer; used by `timepro.events.parse_answer`."""
