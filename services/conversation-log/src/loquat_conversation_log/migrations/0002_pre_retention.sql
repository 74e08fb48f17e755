-- Orders that protect nothing any more go after their days, the oldest first. What is to be erased, or was, stays: a backup may bring the person back.
CREATE INDEX contact_orders_passing ON contact_orders (coalesce(ended_at, ordered_at)) WHERE kind = 'merge' OR state = 'refused';
