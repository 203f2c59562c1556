// The frame of Colab: its manager is made of the same classes of ipywidgets, asks for a widget's state when it is shown, hears of
// changes as a stream, loads modules of widgets from a CDN by a tiny loader of its own, and knows no subshells.
import * as base from '@jupyter-widgets/base';
import { ManagerBase } from '@jupyter-widgets/base-manager';
import * as controls from '@jupyter-widgets/controls';
import '@jupyter-widgets/controls/css/widgets.css';
import './colab.css';
import { deserialize } from '@jupyterlab/services/lib/kernel/serialize';
import { MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { draw, send } from './frame.js';

const CDN = 'https://cdn.jsdelivr.net/npm';
const BUNDLED = { '@jupyter-widgets/base': base, '@jupyter-widgets/controls': controls };

/** A widget as the kernel opened it: its state, and the channel of what follows. */
class Channel {
  hearers = [];
  constructor(id, state) {
    this.comm_id = id;
    this.state = state;
    this.target_name = '';
  }
  send(data, callbacks) {
    const id = crypto.randomUUID();
    const header = { msg_id: id, msg_type: 'comm_msg', session: 'frame', username: '', version: '5.3', date: new Date().toISOString() };
    waiting.set(id, callbacks);
    const content = { comm_id: this.comm_id, data };
    send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: 'shell', buffers: [] }));
    return id;
  }
  close() {}
  on_msg(callback) {
    this.hearers.push(callback);
  }
  on_close() {}
  hear(data, buffers) {
    if (data.method === 'update' && !this.hearers.length) Object.assign(this.state, data.state);
    // Bytes arrive as arrays of bytes here, elsewhere as data views.
    const bytes = buffers.map(b => new Uint8Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength)));
    this.hearers.forEach(callback => callback({ content: { comm_id: this.comm_id, data }, buffers: bytes }));
  }
}
const channels = new Map();
const waiting = new Map();

class Manager extends ManagerBase {
  made = new Map();
  loaded = new Map();

  get_model(id) {
    if (!this.made.has(id)) this.made.set(id, this.make(id));
    return this.made.get(id);
  }
  async make(id) {
    const comm = channels.get(id);
    const { _model_name: model_name, _model_module: model_module, _model_module_version: model_module_version } = comm.state;
    return this.new_model({ model_name, model_module, model_module_version, model_id: id, comm }, comm.state);
  }
  async loadClass(name, module, version) {
    if (!(module in BUNDLED) && !this.loaded.has(module)) this.loaded.set(module, load(`${CDN}/${module}@${version}/dist/index.js`));
    return (BUNDLED[module] ?? (await this.loaded.get(module)))[name];
  }
  _create_comm() {
    throw new Error('No widget is made here.');
  }
  _get_comm_info() {
    throw new Error('Widgets are found when they are shown.');
  }
}

async function load(url) {
  const script = await (await fetch(url)).text();
  let found;
  const define = (first, second, third) => {
    const [needs, make] = typeof first === 'string' ? [second, third] : [first, second];
    found = make(...needs.map(name => BUNDLED[name]));
  };
  new Function('define', script)(define);
  return found;
}

const manager = new Manager();
draw({
  hear: message => {
    const { header, parent_header: parent, content, buffers } = deserialize(message);
    if (header.msg_type === 'comm_open') channels.set(content.comm_id, new Channel(content.comm_id, content.data.state));
    else if (header.msg_type === 'comm_msg') channels.get(content.comm_id)?.hear(content.data, buffers ?? []);
    else if (header.msg_type === 'status' && content.execution_state === 'idle') {
      waiting.get(parent.msg_id)?.iopub?.status?.({ content });
      waiting.delete(parent.msg_id);
    }
  },
  show: async (id, place) => {
    const view = await manager.create_view(await manager.get_model(id));
    MessageLoop.sendMessage(view.luminoWidget, Widget.Msg.BeforeAttach);
    place.append(view.el);
    MessageLoop.sendMessage(view.luminoWidget, Widget.Msg.AfterAttach);
  },
  dark: yes => document.documentElement.setAttribute('theme', yes ? 'dark' : 'light')
});
