"""What a policy comes to, for whoever runs something for it: its storages, claims and schedule brought together, and its CronJobs.

``build``, ``copies``, ``schedule`` and ``together`` are pure. Knows neither what runs came to nor who looks after them.
"""
