"""Jobs of the API: many pictures that nobody waits for. (In `service.queue` a job is one picture.)"""
