// The page around a notebook's outputs. It holds the kernel's socket and runs cells; what the kernel says it passes on to the
// frame, which draws, and can ask for nothing but what it sends here.
const { kernel, frame: address, sandbox } = Object.fromEntries(new URLSearchParams(location.search));
const session = crypto.randomUUID();
const socket = new WebSocket(kernel);
socket.binaryType = 'arraybuffer';
await new Promise(done => socket.addEventListener('open', done));
const frame = document.createElement('iframe');
frame.sandbox = sandbox;
frame.src = address;
let themed;
const ready = new Promise(done => {
  addEventListener('message', ({ data, source }) => {
    if (source !== frame.contentWindow) return;
    if (data === 'ready') done();
    else if (data === 'themed') themed();
    else socket.send(data);
  });
});
document.body.append(frame);
await ready;

const tell = message => frame.contentWindow.postMessage(message, '*');
const cells = new Map();
socket.addEventListener('message', ({ data }) => {
  tell({ message: data });
  if (typeof data !== 'string') return;
  const { header, parent_header: { msg_id: cell }, content } = JSON.parse(data);
  const { msg_type: type } = header;
  const running = cells.get(cell);
  if (type === 'display_data' || type === 'execute_result') tell({ output: content, cell });
  else if (type === 'update_display_data') tell({ update: content });
  else if (type === 'stream') tell({ output: { data: { 'text/plain': content.text } }, cell });
  else if (type === 'error') tell({ output: { data: { 'text/plain': content.traceback.join('\n') } }, cell });
  // The two come over different channels, in either order.
  else if (type === 'execute_reply') running?.replied(content.status);
  else if (type === 'status' && content.execution_state === 'idle') running?.rested();
});

/** Run a cell; gives how it ended. A silent one isn't drawn. */
window.run = (code, silent = false) => {
  const id = crypto.randomUUID();
  const header = { msg_id: id, msg_type: 'execute_request', session, username: '', version: '5.3', date: new Date().toISOString() };
  const content = { code, silent: false, store_history: !silent, user_expressions: {}, allow_stdin: false, stop_on_error: true };
  if (!silent) tell({ cell: id, source: code });
  const running = {};
  const replied = new Promise(done => (running.replied = done));
  const rested = new Promise(done => (running.rested = done));
  cells.set(id, running);
  socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: 'shell', buffers: [] }));
  return rested.then(() => replied);
};
/** Change the theme; over when the frame has changed it. */
window.theme = dark => {
  const changed = new Promise(done => (themed = done));
  tell({ dark });
  return changed;
};
document.body.dataset.ready = 'true';
