// What anywidget is to the panel: a model with messages. The "kernel" answers by asking the test's server.
import panel from '/widget.js';

class Model {
  constructor(state) {
    this.state = state;
    this.listeners = new Map();
    this.sent = [];
    this.deaf = false;
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    this.state[name] = value;
    this.tell(`change:${name}`);
  }
  on(name, callback) {
    this.listeners.set(name, [...(this.listeners.get(name) ?? []), callback]);
  }
  off(name, callback) {
    this.listeners.set(name, (this.listeners.get(name) ?? []).filter(c => c !== callback));
  }
  tell(name, ...values) {
    (this.listeners.get(name) ?? []).forEach(callback => callback(...values));
  }
  async send(message) {
    this.sent.push(message);
    if (message.kitaru !== 'request' || this.deaf) return;
    const query = new URLSearchParams(Object.entries(message.query).filter(([, v]) => v !== undefined && v !== ''));
    const headers = { 'X-Kitaru': '1', 'Content-Type': 'application/json' };
    if (message.range) headers.Range = `bytes=${message.range[0]}-${message.range[1] - 1}`;
    const reply = await fetch(`/api/${message.path}?${query}`, { method: message.method, body: message.body ?? undefined, headers });
    if (message.range) {
      const bytes = new DataView(await reply.arrayBuffer());
      const total = Number(reply.headers.get('Content-Range').split('/')[1]);
      this.tell('msg:custom', { kitaru: 'answer', id: message.id, status: reply.status, body: { total } }, [bytes]);
    } else {
      this.tell('msg:custom', { kitaru: 'answer', id: message.id, status: reply.status, body: await reply.json() }, []);
    }
  }
}

const model = new Model({ execution: new URLSearchParams(location.search).get('execution') ?? '', home: '/home' });
window.model = model;
window.leave = await panel.render({ model, el: document.getElementById('place') });
