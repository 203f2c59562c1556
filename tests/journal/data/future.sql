PRAGMA application_id=1802793589;
PRAGMA user_version=999;
PRAGMA journal_mode=wal;
CREATE TABLE journal (seq INTEGER PRIMARY KEY, novelty TEXT);
INSERT INTO journal VALUES (1, 'from a version that nobody has written yet');
