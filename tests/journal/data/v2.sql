PRAGMA application_id=1802793589;
PRAGMA user_version=2;
BEGIN TRANSACTION;
CREATE TABLE "executions" (
   "id" TEXT PRIMARY KEY NOT NULL,
   "flow" TEXT NOT NULL,
   "status" TEXT NOT NULL,
   "created_at" REAL NOT NULL,
   "updated_at" REAL NOT NULL,
   "ended_at" REAL,
   "original_exec_id" TEXT,
   "deployment" TEXT,
   "stack" TEXT NOT NULL,
   "key" TEXT,
   "epoch" INTEGER NOT NULL DEFAULT 0,
   "lease_owner" TEXT,
   "lease_expires_at" REAL
);
INSERT INTO "executions" VALUES('kr-0n8kcax3d77e','frozen','completed',1.79541656436561202999e+09,1.79541656491283321385e+09,1.79541656491283321385e+09,NULL,NULL,'local',NULL,3,NULL,NULL);
INSERT INTO "executions" VALUES('kr-0n8kcb1f7xy0','frozen','waiting',1795416564.92459,1.79541656504391741754e+09,NULL,NULL,NULL,'local',NULL,1,NULL,NULL);
INSERT INTO "executions" VALUES('kr-0n8kcb2daj5s','frozen','waiting',1.79541656504601311681e+09,1.79541656513933944698e+09,NULL,NULL,NULL,'local',NULL,1,NULL,NULL);
CREATE TABLE "journal" (
   "seq" INTEGER PRIMARY KEY,
   "exec_id" TEXT NOT NULL,
   "kind" TEXT NOT NULL,
   "key" TEXT NOT NULL,
   "at" REAL NOT NULL,
   "body" TEXT NOT NULL,
   "blob" BLOB,
   "cache_key" TEXT
);
INSERT INTO "journal" VALUES(1,'kr-0n8kcax3d77e','execution.created','',1.7954165643656117916e+09,'{"flow":"frozen","by":"ann","ref":{"kind":"module","module":"tests.journal.frozen_flow","qualname":"frozen","root":"/frozen","cwd":"/frozen"},"inputs":{"topic":{"artifact_id":"//topic","name":"topic","kind":"input","serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","size":4,"token":true,"preview":{"text":"''snow''"},"inline":[0,4]}},"options":{"cache":null,"retries":0}}',X'736E6F77',NULL);
INSERT INTO "journal" VALUES(2,'kr-0n8kcax3d77e','execution.claimed','',1.79541656443133616446e+09,'{"owner":{"host":"frozen-host","pid":22882,"started":2648289,"nonce":"8f07d80b0ce6"},"epoch":1}',NULL,NULL);
INSERT INTO "journal" VALUES(3,'kr-0n8kcax3d77e','checkpoint.completed','862a04e6405a7863c629',1.79541656465524458881e+09,'{"name":"look_up","inputs":[["topic","text:a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","''snow''",["input:topic"]],["number","json:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9","0"]],"parent":"f88bbfca8b4a8c957f5b","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.655124,"duration":0.000121,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"3cbfe7e3ebecf7575fab3561c79f09be445c028d7c8f34363df75659e3adbd4f","size":19,"token":true,"preview":{"text":"''snow 0: ünïcödé''"},"inline":[0,19]}]}',X'736E6F7720303A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(4,'kr-0n8kcax3d77e','checkpoint.completed','5d21c6bd661b021cbc58',1.79541656466499400133e+09,'{"name":"look_up","inputs":[["topic","text:a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","''snow''",["input:topic"]],["number","json:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","1"]],"parent":"f88bbfca8b4a8c957f5b","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.6649086,"duration":8.5e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"3f17ccd5ac322d66cd8a1448226093bd49acba268d826500fe6fe1fe05244c72","size":19,"token":true,"preview":{"text":"''snow 1: ünïcödé''"},"inline":[0,19]}]}',X'736E6F7720313A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(5,'kr-0n8kcax3d77e','checkpoint.completed','a8688b84b6b5c87e69ab',1.79541656467718958858e+09,'{"name":"look_up","inputs":[["topic","text:a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","''snow''",["input:topic"]],["number","json:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","2"]],"parent":"f88bbfca8b4a8c957f5b","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.6771207,"duration":6.9e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"8e8a953a43b955bfae37f11960ce0b9f3d9f04a78ecd19c6ebd801dc4a3c0593","size":19,"token":true,"preview":{"text":"''snow 2: ünïcödé''"},"inline":[0,19]}]}',X'736E6F7720323A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(6,'kr-0n8kcax3d77e','checkpoint.started','f88bbfca8b4a8c957f5b',1.79541656463610482209e+09,'{"name":"research","inputs":[["topic","text:a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","''snow''",["input:topic"]]],"place":0,"code":"0834b9c135c597da246ae39a5eecbfcca7970b8bfab1b0c4a0962c42465a5f88","started_at":1795416564.6361048,"attempt":1}',NULL,NULL);
INSERT INTO "journal" VALUES(7,'kr-0n8kcax3d77e','artifact.saved','lines',1.79541656469913411134e+09,'{"artifact":{"artifact_id":"kr-0n8kcax3d77e/f88bbfca8b4a8c957f5b/lines","name":"lines","serializer":"json","python_type":"builtins.list","digest":"eace9420bcd5934fe15e5389daef8769481458f7e12f59c079eebb3da3b1aa6c","size":67,"token":true,"preview":{"text":"[''snow 0: ünïcödé'', ''snow 1: ünïcödé'', ''snow 2: ünïcödé'']"},"producing_call":"f88bbfca8b4a8c957f5b","inline":[0,67]},"call":"f88bbfca8b4a8c957f5b"}',X'5B22736E6F7720303A20C3BC6EC3AF63C3B664C3A9222C22736E6F7720313A20C3BC6EC3AF63C3B664C3A9222C22736E6F7720323A20C3BC6EC3AF63C3B664C3A9225D',NULL);
INSERT INTO "journal" VALUES(8,'kr-0n8kcax3d77e','log.lines','f88bbfca8b4a8c957f5b',1.79541656469919395444e+09,'{"lines":[[1795416564.6362998,"stdout","INFO","looking around"]]}',NULL,NULL);
INSERT INTO "journal" VALUES(9,'kr-0n8kcax3d77e','checkpoint.completed','f88bbfca8b4a8c957f5b',1.79541656469919395444e+09,'{"name":"research","inputs":[["topic","text:a746222f09d85605c52d4e636788d6ffdc274698b98b8c5f3244c06958683a69","''snow''",["input:topic"]]],"place":0,"code":"0834b9c135c597da246ae39a5eecbfcca7970b8bfab1b0c4a0962c42465a5f88","started_at":1795416564.6361048,"duration":0.063089,"outputs":[{"serializer":"json","python_type":"tests.journal.frozen_flow.Notes","digest":"f1574a566bfc1f8cd79bfd13cce8cc938584c129054f79495ddaab0cd46262bc","size":215,"token":true,"preview":{"text":"Notes(topic=''snow'', lines=(''snow 0: ünïcödé'', ''snow 1: ünïcödé'', ''snow 2: ünïcödé''), score=3.935305402391371e+20)"},"inline":[0,215]}],"metadata":{"cost":0.25,"model":"none"}}',X'7B2224223A2264617461636C617373222C2263223A2274657374732E6A6F75726E616C2E66726F7A656E5F666C6F773A4E6F746573222C2276223A5B7B22746F706963223A22736E6F77222C226C696E6573223A7B2224223A227475706C65222C2276223A5B22736E6F7720303A20C3BC6EC3AF63C3B664C3A9222C22736E6F7720313A20C3BC6EC3AF63C3B664C3A9222C22736E6F7720323A20C3BC6EC3AF63C3B664C3A9225D7D2C2273636F7265223A332E393335333035343032333931333731652B32307D2C7B7D5D2C226F6B223A747275657D',NULL);
INSERT INTO "journal" VALUES(10,'kr-0n8kcax3d77e','checkpoint.failed','35b7f596937d29037729',1.79541656471639251711e+09,'{"name":"shaky","inputs":[["notes","json:f1574a566bfc1f8cd79bfd13cce8cc938584c129054f79495ddaab0cd46262bc","Notes(topic=''snow'', lines=(''snow 0: ünïcödé'', ''snow 1: ünïcödé'', ''snow 2: ünïcödé''), score=3.935305402391371e+20)",["f88bbfca8b4a8c957f5b"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416564.7163076,"attempt":1,"attempt_at":1795416564.7163076,"failure":{"message":"the first attempt fails","exception_type":"builtins.ConnectionError","traceback":"Traceback (most recent call last):\n  File \"/frozen/kitaru_nb/core/engine.py\", line 376, in _attempts\n    value = yield Invoke(call, attempt)\n            ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/drive.py\", line 19, in drive\n    result = perform(effect)\n             ^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 222, in perform\n    return self._invoke(effect)\n           ^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 289, in _invoke\n    return effect.call.work.invoke(effect.call, effect.attempt)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/function_work.py\", line 51, in invoke\n    return self.checkpoint.func(*args, **kwargs)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/tests/journal/frozen_flow.py\", line 58, in shaky\n    raise ConnectionError(\"the first attempt fails\")\nConnectionError: the first attempt fails\n","origin":"user"},"final":false,"retry_in":0.0}',X'8004953E000000000000008C086275696C74696E73948C0F436F6E6E656374696F6E4572726F729493948C1774686520666972737420617474656D7074206661696C7394859452942E',NULL);
INSERT INTO "journal" VALUES(11,'kr-0n8kcax3d77e','checkpoint.completed','35b7f596937d29037729',1.7954165647627882957e+09,'{"name":"shaky","inputs":[["notes","json:f1574a566bfc1f8cd79bfd13cce8cc938584c129054f79495ddaab0cd46262bc","Notes(topic=''snow'', lines=(''snow 0: ünïcödé'', ''snow 1: ünïcödé'', ''snow 2: ünïcödé''), score=3.935305402391371e+20)",["f88bbfca8b4a8c957f5b"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416564.7163076,"attempt":2,"duration":0.046481,"outputs":[{"serializer":"json","python_type":"builtins.dict","digest":"196e07ba52d81796335148056f9c98372c1c3130801870d25e4ebd55d129f779","size":53,"token":true,"preview":{"text":"{''score'': 3.935305402391371e+20, ''count'': 3, ''none'': None}"},"inline":[0,53]}]}',X'7B2273636F7265223A332E393335333035343032333931333731652B32302C22636F756E74223A332C226E6F6E65223A6E756C6C7D',NULL);
INSERT INTO "journal" VALUES(12,'kr-0n8kcax3d77e','wait.created','0d056cb2f8556a3788fb',1.7954165647722260952e+09,'{"name":"approve","schema":{"type":"boolean"},"question":"Publish 3 lines?","timeout":0,"after":["35b7f596937d29037729"]}',NULL,NULL);
INSERT INTO "journal" VALUES(13,'kr-0n8kcax3d77e','execution.waiting','',1.79541656478315377236e+09,'{"waits":["0d056cb2f8556a3788fb"]}',NULL,NULL);
INSERT INTO "journal" VALUES(14,'kr-0n8kcax3d77e','wait.resolved','0d056cb2f8556a3788fb',1.79541656479562306402e+09,'{"value":true,"by":"ann","via":"cli"}',NULL,NULL);
INSERT INTO "journal" VALUES(15,'kr-0n8kcax3d77e','execution.claimed','',1.79541656480329751971e+09,'{"owner":{"host":"frozen-host","pid":22882,"started":2648289,"nonce":"e380cf1f0d8f"},"epoch":2}',NULL,NULL);
INSERT INTO "journal" VALUES(16,'kr-0n8kcax3d77e','wait.created','5a8d50259b56abe032b4',1.79541656482469034195e+09,'{"name":"note","schema":{"type":"string"},"timeout":0,"after":["wait:0d056cb2f8556a3788fb"]}',NULL,NULL);
INSERT INTO "journal" VALUES(17,'kr-0n8kcax3d77e','execution.waiting','',1.79541656484726667398e+09,'{"waits":["5a8d50259b56abe032b4"]}',NULL,NULL);
INSERT INTO "journal" VALUES(18,'kr-0n8kcax3d77e','wait.resolved','5a8d50259b56abe032b4',1.79541656485777163503e+09,'{"value":"good","by":"ann","via":"cli"}',NULL,NULL);
INSERT INTO "journal" VALUES(19,'kr-0n8kcax3d77e','execution.claimed','',1.79541656487151050566e+09,'{"owner":{"host":"frozen-host","pid":22882,"started":2648289,"nonce":"db1f57566be8"},"epoch":3}',NULL,NULL);
INSERT INTO "journal" VALUES(20,'kr-0n8kcax3d77e','checkpoint.completed','cde68cdf8eb0011f5104',1.7954165648820621967e+09,'{"name":"publish","inputs":[["notes","json:f1574a566bfc1f8cd79bfd13cce8cc938584c129054f79495ddaab0cd46262bc","Notes(topic=''snow'', lines=(''snow 0: ünïcödé'', ''snow 1: ünïcödé'', ''snow 2: ünïcödé''), score=3.935305402391371e+20)",["f88bbfca8b4a8c957f5b"]],["found","json:196e07ba52d81796335148056f9c98372c1c3130801870d25e4ebd55d129f779","{''score'': 3.935305402391371e+20, ''count'': 3, ''none'': None}",["35b7f596937d29037729"]],["note","text:770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c","''good''"]],"place":0,"code":"6145a950d2576f6d52f7e6e17852b5e6e51339af608f0fd85cf5000910e38b34","after":["wait:5a8d50259b56abe032b4"],"started_at":1795416564.8819883,"duration":7.4e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"93cadb3c2210b5c78ff677f87c8f64a33e9ab46fd3e2c1a32a03022bdde48613","size":19,"token":true,"preview":{"text":"''snow: 3 lines, good''"},"inline":[0,19]}]}',X'736E6F773A2033206C696E65732C20676F6F64',NULL);
INSERT INTO "journal" VALUES(21,'kr-0n8kcax3d77e','execution.completed','',1.79541656491283321385e+09,'{"result":{"artifact_id":"kr-0n8kcax3d77e//result","name":"result","serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"93cadb3c2210b5c78ff677f87c8f64a33e9ab46fd3e2c1a32a03022bdde48613","size":19,"token":true,"preview":{"text":"''snow: 3 lines, good''"},"inline":[0,19]}}',X'736E6F773A2033206C696E65732C20676F6F64',NULL);
INSERT INTO "journal" VALUES(22,'kr-0n8kcb1f7xy0','execution.created','',1.7954165649245898723e+09,'{"flow":"frozen","by":"ann","ref":{"kind":"module","module":"tests.journal.frozen_flow","qualname":"frozen","root":"/frozen","cwd":"/frozen"},"inputs":{"topic":{"artifact_id":"//topic","name":"topic","kind":"input","serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"319b44c570a417ff3444896cd4aa77f052b6781773fc2f9aa1f1180ac745005c","size":4,"token":true,"preview":{"text":"''rain''"},"inline":[0,4]}},"options":{"cache":null,"retries":0}}',X'7261696E',NULL);
INSERT INTO "journal" VALUES(23,'kr-0n8kcb1f7xy0','execution.claimed','',1.79541656493705654136e+09,'{"owner":{"host":"frozen-host","pid":22882,"started":2648289,"nonce":"31edcbf8d7b7"},"epoch":1}',NULL,NULL);
INSERT INTO "journal" VALUES(24,'kr-0n8kcb1f7xy0','checkpoint.completed','2b20f829829b99a1d98c',1.79541656497520613674e+09,'{"name":"look_up","inputs":[["topic","text:319b44c570a417ff3444896cd4aa77f052b6781773fc2f9aa1f1180ac745005c","''rain''",["input:topic"]],["number","json:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9","0"]],"parent":"081a3224276032396e5a","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.9751134,"duration":9.3e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"015d1f9e529490f97e71119fe7d6fb51c4ae096a73f585ec0a92f8f863cc1b7e","size":19,"token":true,"preview":{"text":"''rain 0: ünïcödé''"},"inline":[0,19]}]}',X'7261696E20303A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(25,'kr-0n8kcb1f7xy0','checkpoint.completed','e3c2825f2abb1b12145f',1.7954165649874055386e+09,'{"name":"look_up","inputs":[["topic","text:319b44c570a417ff3444896cd4aa77f052b6781773fc2f9aa1f1180ac745005c","''rain''",["input:topic"]],["number","json:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","1"]],"parent":"081a3224276032396e5a","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.9873173,"duration":8.8e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"a267dbe3bda56e168e8d501242ad408ac7410a7113869f119c8bfc1c62070bce","size":19,"token":true,"preview":{"text":"''rain 1: ünïcödé''"},"inline":[0,19]}]}',X'7261696E20313A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(26,'kr-0n8kcb1f7xy0','checkpoint.completed','85b63e1de2128fa7c234',1.79541656498827648168e+09,'{"name":"look_up","inputs":[["topic","text:319b44c570a417ff3444896cd4aa77f052b6781773fc2f9aa1f1180ac745005c","''rain''",["input:topic"]],["number","json:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","2"]],"parent":"081a3224276032396e5a","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416564.98825,"duration":2.6e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"5d044c4573efd9558543d399579cda2a33b6aa56bd4fbe4f50f9ae1afdb679aa","size":19,"token":true,"preview":{"text":"''rain 2: ünïcödé''"},"inline":[0,19]}]}',X'7261696E20323A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(27,'kr-0n8kcb1f7xy0','artifact.saved','lines',1.79541656500053071979e+09,'{"artifact":{"artifact_id":"kr-0n8kcb1f7xy0/081a3224276032396e5a/lines","name":"lines","serializer":"json","python_type":"builtins.list","digest":"6cc231fa295521b66b2997eb8b1213e60a639b959a98402c4d68b12e2f1f0083","size":67,"token":true,"preview":{"text":"[''rain 0: ünïcödé'', ''rain 1: ünïcödé'', ''rain 2: ünïcödé'']"},"producing_call":"081a3224276032396e5a","inline":[0,67]},"call":"081a3224276032396e5a"}',X'5B227261696E20303A20C3BC6EC3AF63C3B664C3A9222C227261696E20313A20C3BC6EC3AF63C3B664C3A9222C227261696E20323A20C3BC6EC3AF63C3B664C3A9225D',NULL);
INSERT INTO "journal" VALUES(28,'kr-0n8kcb1f7xy0','log.lines','081a3224276032396e5a',1.79541656500056576728e+09,'{"lines":[[1795416564.9599319,"stdout","INFO","looking around"]]}',NULL,NULL);
INSERT INTO "journal" VALUES(29,'kr-0n8kcb1f7xy0','checkpoint.completed','081a3224276032396e5a',1.79541656500056576728e+09,'{"name":"research","inputs":[["topic","text:319b44c570a417ff3444896cd4aa77f052b6781773fc2f9aa1f1180ac745005c","''rain''",["input:topic"]]],"place":0,"code":"0834b9c135c597da246ae39a5eecbfcca7970b8bfab1b0c4a0962c42465a5f88","started_at":1795416564.959789,"duration":0.040777,"outputs":[{"serializer":"json","python_type":"tests.journal.frozen_flow.Notes","digest":"d72b0869e891cf6f08869dbb333a08b2bce7fa025c4394f84c3a124225f18d03","size":215,"token":true,"preview":{"text":"Notes(topic=''rain'', lines=(''rain 0: ünïcödé'', ''rain 1: ünïcödé'', ''rain 2: ünïcödé''), score=3.935305402391371e+20)"},"inline":[0,215]}],"metadata":{"cost":0.25,"model":"none"}}',X'7B2224223A2264617461636C617373222C2263223A2274657374732E6A6F75726E616C2E66726F7A656E5F666C6F773A4E6F746573222C2276223A5B7B22746F706963223A227261696E222C226C696E6573223A7B2224223A227475706C65222C2276223A5B227261696E20303A20C3BC6EC3AF63C3B664C3A9222C227261696E20313A20C3BC6EC3AF63C3B664C3A9222C227261696E20323A20C3BC6EC3AF63C3B664C3A9225D7D2C2273636F7265223A332E393335333035343032333931333731652B32307D2C7B7D5D2C226F6B223A747275657D',NULL);
INSERT INTO "journal" VALUES(30,'kr-0n8kcb1f7xy0','checkpoint.failed','71bc3ad285190f352f40',1.79541656500881910323e+09,'{"name":"shaky","inputs":[["notes","json:d72b0869e891cf6f08869dbb333a08b2bce7fa025c4394f84c3a124225f18d03","Notes(topic=''rain'', lines=(''rain 0: ünïcödé'', ''rain 1: ünïcödé'', ''rain 2: ünïcödé''), score=3.935305402391371e+20)",["081a3224276032396e5a"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416565.008758,"attempt":1,"attempt_at":1795416565.008758,"failure":{"message":"the first attempt fails","exception_type":"builtins.ConnectionError","traceback":"Traceback (most recent call last):\n  File \"/frozen/kitaru_nb/core/engine.py\", line 376, in _attempts\n    value = yield Invoke(call, attempt)\n            ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/drive.py\", line 19, in drive\n    result = perform(effect)\n             ^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 222, in perform\n    return self._invoke(effect)\n           ^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 289, in _invoke\n    return effect.call.work.invoke(effect.call, effect.attempt)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/function_work.py\", line 51, in invoke\n    return self.checkpoint.func(*args, **kwargs)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/tests/journal/frozen_flow.py\", line 58, in shaky\n    raise ConnectionError(\"the first attempt fails\")\nConnectionError: the first attempt fails\n","origin":"user"},"final":false,"retry_in":0.0}',X'8004953E000000000000008C086275696C74696E73948C0F436F6E6E656374696F6E4572726F729493948C1774686520666972737420617474656D7074206661696C7394859452942E',NULL);
INSERT INTO "journal" VALUES(31,'kr-0n8kcb1f7xy0','checkpoint.completed','71bc3ad285190f352f40',1.795416565021966219e+09,'{"name":"shaky","inputs":[["notes","json:d72b0869e891cf6f08869dbb333a08b2bce7fa025c4394f84c3a124225f18d03","Notes(topic=''rain'', lines=(''rain 0: ünïcödé'', ''rain 1: ünïcödé'', ''rain 2: ünïcödé''), score=3.935305402391371e+20)",["081a3224276032396e5a"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416565.008758,"attempt":2,"duration":0.013208,"outputs":[{"serializer":"json","python_type":"builtins.dict","digest":"196e07ba52d81796335148056f9c98372c1c3130801870d25e4ebd55d129f779","size":53,"token":true,"preview":{"text":"{''score'': 3.935305402391371e+20, ''count'': 3, ''none'': None}"},"inline":[0,53]}]}',X'7B2273636F7265223A332E393335333035343032333931333731652B32302C22636F756E74223A332C226E6F6E65223A6E756C6C7D',NULL);
INSERT INTO "journal" VALUES(32,'kr-0n8kcb1f7xy0','wait.created','0d056cb2f8556a3788fb',1.79541656504046320914e+09,'{"name":"approve","schema":{"type":"boolean"},"question":"Publish 3 lines?","timeout":0,"after":["71bc3ad285190f352f40"]}',NULL,NULL);
INSERT INTO "journal" VALUES(33,'kr-0n8kcb1f7xy0','execution.waiting','',1.79541656504391741754e+09,'{"waits":["0d056cb2f8556a3788fb"]}',NULL,NULL);
INSERT INTO "journal" VALUES(34,'kr-0n8kcb1f7xy0','wait.resolved','0d056cb2f8556a3788fb',1.79541656504501628876e+09,'{"value":true,"by":"ann","via":"cli"}',NULL,NULL);
INSERT INTO "journal" VALUES(35,'kr-0n8kcb2daj5s','execution.created','',1.79541656504601287837e+09,'{"flow":"frozen","by":"ann","ref":{"kind":"module","module":"tests.journal.frozen_flow","qualname":"frozen","root":"/frozen","cwd":"/frozen"},"inputs":{"topic":{"artifact_id":"//topic","name":"topic","kind":"input","serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"9b58e68145a79ca0e19957f3e5c88fd92ff2e28a7bd09ed30ee365fc4f9aafe0","size":4,"token":true,"preview":{"text":"''wind''"},"inline":[0,4]}},"options":{"cache":null,"retries":0}}',X'77696E64',NULL);
INSERT INTO "journal" VALUES(36,'kr-0n8kcb2daj5s','execution.claimed','',1.79541656504727101329e+09,'{"owner":{"host":"frozen-host","pid":22882,"started":2648289,"nonce":"d850c2d6b286"},"epoch":1}',NULL,NULL);
INSERT INTO "journal" VALUES(37,'kr-0n8kcb2daj5s','checkpoint.completed','2ae08d1634a851f8255f',1.79541656504997086522e+09,'{"name":"look_up","inputs":[["topic","text:9b58e68145a79ca0e19957f3e5c88fd92ff2e28a7bd09ed30ee365fc4f9aafe0","''wind''",["input:topic"]],["number","json:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9","0"]],"parent":"6220ac0b4c931fb5216c","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416565.0498796,"duration":9.1e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"49b3ae58329ca2c99366eb1fb75036a21ea69160ff16a69ad8805b7708116ebc","size":19,"token":true,"preview":{"text":"''wind 0: ünïcödé''"},"inline":[0,19]}]}',X'77696E6420303A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(38,'kr-0n8kcb2daj5s','checkpoint.completed','2bed15393641f3e1e835',1.79541656505506253245e+09,'{"name":"look_up","inputs":[["topic","text:9b58e68145a79ca0e19957f3e5c88fd92ff2e28a7bd09ed30ee365fc4f9aafe0","''wind''",["input:topic"]],["number","json:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","1"]],"parent":"6220ac0b4c931fb5216c","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416565.0549772,"duration":8.5e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"43c3a7c310fd7c607dfa3c850ca8d4af90ba41d259b1940c2a921b1ff5a47651","size":19,"token":true,"preview":{"text":"''wind 1: ünïcödé''"},"inline":[0,19]}]}',X'77696E6420313A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(39,'kr-0n8kcb2daj5s','checkpoint.completed','d2ab58c3943690e07d8e',1.79541656505913424491e+09,'{"name":"look_up","inputs":[["topic","text:9b58e68145a79ca0e19957f3e5c88fd92ff2e28a7bd09ed30ee365fc4f9aafe0","''wind''",["input:topic"]],["number","json:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","2"]],"parent":"6220ac0b4c931fb5216c","code":"45de9386571a3d746de24457ac66d12e4a5ef7c5f794c94c20589d62c552da51","started_at":1795416565.0590634,"duration":7.1e-05,"outputs":[{"serializer":"text","python_type":"builtins.str","media_type":"text/plain; charset=utf-8","digest":"bed5e0b0015fee3df872b254677549f5cd42891e4a578ea00db96ac4a657bd57","size":19,"token":true,"preview":{"text":"''wind 2: ünïcödé''"},"inline":[0,19]}]}',X'77696E6420323A20C3BC6EC3AF63C3B664C3A9',NULL);
INSERT INTO "journal" VALUES(40,'kr-0n8kcb2daj5s','artifact.saved','lines',1.79541656506960034369e+09,'{"artifact":{"artifact_id":"kr-0n8kcb2daj5s/6220ac0b4c931fb5216c/lines","name":"lines","serializer":"json","python_type":"builtins.list","digest":"6d440c4353ab7bebf2b6bb7551d3f2258b2d33d1fb9adb7084e0c4bed55c4367","size":67,"token":true,"preview":{"text":"[''wind 0: ünïcödé'', ''wind 1: ünïcödé'', ''wind 2: ünïcödé'']"},"producing_call":"6220ac0b4c931fb5216c","inline":[0,67]},"call":"6220ac0b4c931fb5216c"}',X'5B2277696E6420303A20C3BC6EC3AF63C3B664C3A9222C2277696E6420313A20C3BC6EC3AF63C3B664C3A9222C2277696E6420323A20C3BC6EC3AF63C3B664C3A9225D',NULL);
INSERT INTO "journal" VALUES(41,'kr-0n8kcb2daj5s','log.lines','6220ac0b4c931fb5216c',1.7954165650696868896e+09,'{"lines":[[1795416565.0491948,"stdout","INFO","looking around"]]}',NULL,NULL);
INSERT INTO "journal" VALUES(42,'kr-0n8kcb2daj5s','checkpoint.completed','6220ac0b4c931fb5216c',1.7954165650696868896e+09,'{"name":"research","inputs":[["topic","text:9b58e68145a79ca0e19957f3e5c88fd92ff2e28a7bd09ed30ee365fc4f9aafe0","''wind''",["input:topic"]]],"place":0,"code":"0834b9c135c597da246ae39a5eecbfcca7970b8bfab1b0c4a0962c42465a5f88","started_at":1795416565.0491157,"duration":0.020571,"outputs":[{"serializer":"json","python_type":"tests.journal.frozen_flow.Notes","digest":"04aed93176b5be3075a5aa0ba8d86f41324d5c36a9d73256a22cfdaefb2cebd7","size":215,"token":true,"preview":{"text":"Notes(topic=''wind'', lines=(''wind 0: ünïcödé'', ''wind 1: ünïcödé'', ''wind 2: ünïcödé''), score=3.935305402391371e+20)"},"inline":[0,215]}],"metadata":{"cost":0.25,"model":"none"}}',X'7B2224223A2264617461636C617373222C2263223A2274657374732E6A6F75726E616C2E66726F7A656E5F666C6F773A4E6F746573222C2276223A5B7B22746F706963223A2277696E64222C226C696E6573223A7B2224223A227475706C65222C2276223A5B2277696E6420303A20C3BC6EC3AF63C3B664C3A9222C2277696E6420313A20C3BC6EC3AF63C3B664C3A9222C2277696E6420323A20C3BC6EC3AF63C3B664C3A9225D7D2C2273636F7265223A332E393335333035343032333931333731652B32307D2C7B7D5D2C226F6B223A747275657D',NULL);
INSERT INTO "journal" VALUES(43,'kr-0n8kcb2daj5s','checkpoint.failed','e19238ef91a1a5df3b35',1.79541656509329128265e+09,'{"name":"shaky","inputs":[["notes","json:04aed93176b5be3075a5aa0ba8d86f41324d5c36a9d73256a22cfdaefb2cebd7","Notes(topic=''wind'', lines=(''wind 0: ünïcödé'', ''wind 1: ünïcödé'', ''wind 2: ünïcödé''), score=3.935305402391371e+20)",["6220ac0b4c931fb5216c"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416565.0931847,"attempt":1,"attempt_at":1795416565.0931847,"failure":{"message":"the first attempt fails","exception_type":"builtins.ConnectionError","traceback":"Traceback (most recent call last):\n  File \"/frozen/kitaru_nb/core/engine.py\", line 376, in _attempts\n    value = yield Invoke(call, attempt)\n            ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/drive.py\", line 19, in drive\n    result = perform(effect)\n             ^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 222, in perform\n    return self._invoke(effect)\n           ^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/run.py\", line 289, in _invoke\n    return effect.call.work.invoke(effect.call, effect.attempt)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/kitaru_nb/core/function_work.py\", line 51, in invoke\n    return self.checkpoint.func(*args, **kwargs)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"/frozen/tests/journal/frozen_flow.py\", line 58, in shaky\n    raise ConnectionError(\"the first attempt fails\")\nConnectionError: the first attempt fails\n","origin":"user"},"final":false,"retry_in":0.0}',X'8004953E000000000000008C086275696C74696E73948C0F436F6E6E656374696F6E4572726F729493948C1774686520666972737420617474656D7074206661696C7394859452942E',NULL);
INSERT INTO "journal" VALUES(44,'kr-0n8kcb2daj5s','checkpoint.completed','e19238ef91a1a5df3b35',1.79541656511900258067e+09,'{"name":"shaky","inputs":[["notes","json:04aed93176b5be3075a5aa0ba8d86f41324d5c36a9d73256a22cfdaefb2cebd7","Notes(topic=''wind'', lines=(''wind 0: ünïcödé'', ''wind 1: ünïcödé'', ''wind 2: ünïcödé''), score=3.935305402391371e+20)",["6220ac0b4c931fb5216c"]]],"place":0,"code":"2d389fb00e745e308d4444db4c370840b295fee2c84b18f7658d5e7c1a714832","started_at":1795416565.0931847,"attempt":2,"duration":0.025818,"outputs":[{"serializer":"json","python_type":"builtins.dict","digest":"196e07ba52d81796335148056f9c98372c1c3130801870d25e4ebd55d129f779","size":53,"token":true,"preview":{"text":"{''score'': 3.935305402391371e+20, ''count'': 3, ''none'': None}"},"inline":[0,53]}]}',X'7B2273636F7265223A332E393335333035343032333931333731652B32302C22636F756E74223A332C226E6F6E65223A6E756C6C7D',NULL);
INSERT INTO "journal" VALUES(45,'kr-0n8kcb2daj5s','wait.created','0d056cb2f8556a3788fb',1.79541656512057876582e+09,'{"name":"approve","schema":{"type":"boolean"},"question":"Publish 3 lines?","timeout":0,"after":["e19238ef91a1a5df3b35"]}',NULL,NULL);
INSERT INTO "journal" VALUES(46,'kr-0n8kcb2daj5s','execution.waiting','',1.79541656513933944698e+09,'{"waits":["0d056cb2f8556a3788fb"]}',NULL,NULL);
CREATE TABLE "pending_waits" (
   "seq" INTEGER PRIMARY KEY,
   "exec_id" TEXT NOT NULL,
   "wait_id" TEXT NOT NULL,
   "until" REAL
);
INSERT INTO "pending_waits" VALUES(45,'kr-0n8kcb2daj5s','0d056cb2f8556a3788fb',NULL);
CREATE TABLE "ref_changes" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT NOT NULL,
   "value" TEXT,
   "at" REAL NOT NULL,
   "by" TEXT NOT NULL
);
INSERT INTO "ref_changes" VALUES(1,'tag/brief/prod','v1',1.79541656514310765269e+09,'ann');
INSERT INTO "ref_changes" VALUES(2,'tag/brief/prod','v2',1.79541656515424489972e+09,'bob');
CREATE TABLE "refs" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "value" TEXT NOT NULL
);
INSERT INTO "refs" VALUES('tag/brief/prod','v2');
CREATE INDEX "idx_executions_flow_id"
    ON "executions" ("flow", "id");
CREATE INDEX "idx_executions_status_id"
    ON "executions" ("status", "id");
CREATE INDEX "idx_executions_flow_status_id"
    ON "executions" ("flow", "status", "id");
CREATE UNIQUE INDEX executions_key on executions (flow, key) where key is not null;
CREATE INDEX "idx_journal_exec_id_seq"
    ON "journal" ("exec_id", "seq");
CREATE UNIQUE INDEX journal_once on journal (exec_id, kind, key) where kind in ('checkpoint.completed', 'wait.created', 'wait.resolved');
CREATE INDEX journal_cache_key on journal (cache_key) where cache_key is not null;
CREATE INDEX "idx_pending_waits_exec_id_wait_id"
    ON "pending_waits" ("exec_id", "wait_id");
CREATE INDEX pending_waits_until on pending_waits (until) where until is not null;
CREATE TRIGGER wait_created after insert on journal when new.kind = 'wait.created' begin
            insert into pending_waits (seq, exec_id, wait_id, until)
            select new.seq, new.exec_id, new.key, json_extract(new.body, '$.until')
            where not exists (
                select 1 from journal where exec_id = new.exec_id and kind = 'wait.resolved' and key = new.key);
        end;
CREATE TRIGGER wait_resolved after insert on journal when new.kind = 'wait.resolved' begin
            delete from pending_waits where exec_id = new.exec_id and wait_id = new.key;
        end;
CREATE INDEX "idx_ref_changes_name_id"
    ON "ref_changes" ("name", "id");
CREATE VIEW "checkpoints" AS
    select exec_id, call_id, name, type, status,
        strftime('%Y-%m-%dT%H:%M:%fZ', started, 'unixepoch') as started_at,
        case when status in ('running', 'retrying') then null else strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(started + seconds, at), 'unixepoch') end
            as ended_at,
        seconds, attempt, parent, error, reused_from
    from (
        select exec_id, key as call_id, at, max(seq + case kind when 'checkpoint.completed' then 1 << 62 else 0 end),
            json_extract(body, '$.name') as name,
            json_extract(body, '$.type') as type,
            case kind
                when 'checkpoint.completed' then
                    case when json_extract(body, '$.reused') is null then 'completed' else 'reused' end
                when 'checkpoint.failed' then
                    case when json_extract(body, '$.final') then 'failed' else 'retrying' end
                else 'running' end as status,
            coalesce(json_extract(body, '$.started_at'), case kind when 'checkpoint.started' then at end) as started,
            json_extract(body, '$.duration') as seconds,
            coalesce(json_extract(body, '$.attempt'), case
                when kind = 'checkpoint.completed' and json_extract(body, '$.reused') is null then 1 end) as attempt,
            json_extract(body, '$.parent') as parent,
            json_extract(body, '$.failure.message') as error,
            json_extract(body, '$.reused.exec_id') as reused_from
        from journal
        where kind in ('checkpoint.started', 'checkpoint.completed', 'checkpoint.failed')
        group by exec_id, key);
CREATE VIEW "artifacts" AS
    select exec_id, call_id,
        coalesce(json_extract(artifact, '$.name'), call_name) as name,
        coalesce(json_extract(artifact, '$.kind'), 'output') as kind,
        json_extract(artifact, '$.python_type') as python_type,
        coalesce(json_extract(artifact, '$.media_type'),
            case json_extract(artifact, '$.serializer') when 'json' then 'application/json' end) as media_type,
        json_extract(artifact, '$.size') as size,
        json_extract(artifact, '$.preview.text') as preview,
        case when json_extract(artifact, '$.inline') is null then 'store' else 'journal' end as stored_in,
        json_extract(artifact, '$.digest') as digest,
        strftime('%Y-%m-%dT%H:%M:%fZ', at, 'unixepoch') as created_at,
        coalesce(json_extract(artifact, '$.artifact_id'), exec_id || '/' || coalesce(call_id, '') || '/' ||
            coalesce(json_extract(artifact, '$.name'), call_name)) as artifact_id
    from (
        select exec_id, journal.key as call_id, at, output.value as artifact, json_extract(body, '$.name') as call_name
        from journal, json_each(body, '$.outputs') as output
        where journal.kind = 'checkpoint.completed'
        union all
        select exec_id, null, at, input.value, null from journal, json_each(body, '$.inputs') as input
        where journal.kind = 'execution.created'
        union all
        select exec_id, json_extract(body, '$.call'), at, json_extract(body, '$.artifact'), null from journal
        where kind = 'artifact.saved'
        union all
        select exec_id, null, at, json_extract(body, '$.result'), null from journal
        where kind = 'execution.completed' and json_extract(body, '$.result') is not null);
CREATE VIEW "waits" AS
    select created.exec_id as exec_id, created.key as wait_id,
        json_extract(created.body, '$.name') as name,
        json_extract(created.body, '$.question') as question,
        case when resolved.seq is null then 'pending'
            when json_extract(resolved.body, '$.aborted') then 'aborted' else 'resolved' end as status,
        case json_type(resolved.body, '$.value') when 'true' then 'true' when 'false' then 'false'
            else json_extract(resolved.body, '$.value') end as value,
        json_extract(resolved.body, '$.by') as resolved_by,
        json_extract(resolved.body, '$.via') as via,
        strftime('%Y-%m-%dT%H:%M:%fZ', created.at, 'unixepoch') as created_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', json_extract(created.body, '$.until'), 'unixepoch') as until,
        strftime('%Y-%m-%dT%H:%M:%fZ', resolved.at, 'unixepoch') as resolved_at,
        resolved.at - created.at as seconds
    from journal as created
    left join journal as resolved on resolved.exec_id = created.exec_id
        and resolved.kind = 'wait.resolved' and resolved.key = created.key
    where created.kind = 'wait.created';
COMMIT;
