-- What the API's lists of events and calls are filtered by.
create index event_log_number on event_log (number_id, position) where number_id is not null;
create index event_log_call on event_log (call_id, position) where call_id is not null;
create index calls_number on calls (number_id, id desc) where number_id is not null;
