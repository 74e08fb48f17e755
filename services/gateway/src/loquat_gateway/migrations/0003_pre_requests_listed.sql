-- When the directory first spoke of an ordered project: an order that was answered says nothing about what the project is now.
ALTER TABLE project_requests ADD COLUMN listed_at timestamptz;
