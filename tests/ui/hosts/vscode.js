// The frame of VS Code: the widget manager of its Jupyter extension, on a kernel whose socket is the page. As there, this kernel
// knows no subshells, modules of widgets are loaded by RequireJS from a copy of the environment's nbextensions, and what
// JupyterLab calls its colours is made of the editor's.
import '@jupyter-widgets/controls/css/labvariables.css';
import './vscode.css';
import { KernelConnection } from '@jupyterlab/services/lib/kernel/default';
import { CommsOverSubshells } from '@jupyterlab/services/lib/kernel/comm';
import { ServerConnection } from '@jupyterlab/services/lib/serverconnection';
import { activate } from '@vscode/jupyter-ipywidgets8';
import { draw, send } from './frame.js';

let socket;
class PageSocket {
  protocol = '';
  readyState = 1;
  constructor() {
    socket = this;
    setTimeout(() => this.onopen?.());
  }
  send(message) {
    send(message);
  }
  close() {}
}

const kernel = new KernelConnection({
  serverSettings: ServerConnection.makeSettings({ baseUrl: 'http://nowhere.invalid', wsUrl: 'ws://nowhere.invalid', WebSocket: PageSocket }),
  model: { id: 'kernel', name: 'python3' },
  handleComms: true,
  commsOverSubshells: CommsOverSubshells.Disabled
});
activate();
window.vscIPyWidgets8.load();
const scripts = {
  widgetsRegisteredInRequireJs: new Set(),
  loadWidgetScript: async name => {
    window.requirejs.config({ paths: { [name]: `nbextensions/${name}/index` } });
    scripts.widgetsRegisteredInRequireJs.add(name);
  },
  successHandler: () => undefined,
  errorHandler: (name, module, version, error) => console.error(`${module} ${version} ${name}:`, error)
};
const manager = new window.vscIPyWidgets.WidgetManager(kernel, document.body, scripts, () => undefined);

// A widget is shown when all messages before its output were taken.
const displayed = new Map();
const display = id => displayed.get(id) ?? displayed.set(id, Promise.withResolvers()).get(id);
kernel.iopubMessage.connect((_, { content }) => {
  const id = content?.data?.['application/vnd.jupyter.widget-view+json']?.model_id;
  if (id) display(id).resolve();
});

draw({
  hear: message => socket.onmessage?.({ data: message }),
  show: async (id, place) => {
    place.classList.add('cell-output-ipywidget-background');
    await display(id).promise;
    const view = await manager.create_view(await manager.get_model(id), { el: place });
    await manager.display_view({}, view, { node: place });
  },
  dark: yes => {
    document.body.className = yes ? 'vscode-dark' : 'vscode-light';
    document.body.dataset.vscodeThemeKind = document.body.className;
  }
});
