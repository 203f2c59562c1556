// The frame in which outputs live: cells one below the other, each output in the richest form that the host can show.
const WIDGET = 'application/vnd.jupyter.widget-view+json';

/** What the page sends on to the kernel. */
export const send = message => parent.postMessage(message, '*');

/**
 * Draw what the page tells.
 *
 * @param host `hear(message)` takes what came through the kernel's socket, `show(model, place)` draws a widget, `dark(yes)` changes
 *   the theme.
 */
export function draw(host) {
  const shown = new Map();
  const cells = new Map();
  const fill = async (place, data) => {
    place.replaceChildren();
    place.className = data[WIDGET] ? 'output widget' : 'output';
    if (data[WIDGET]) await host.show(data[WIDGET].model_id, place);
    else if (data['text/html']) place.innerHTML = data['text/html'];
    else place.append(Object.assign(document.createElement('pre'), { textContent: data['text/plain'] }));
  };
  addEventListener('message', ({ data: told }) => {
    if ('message' in told) host.hear(told.message);
    else if ('dark' in told) {
      host.dark(told.dark);
      send('themed');
    } else if ('source' in told) {
      const cell = document.createElement('section');
      cell.append(Object.assign(document.createElement('pre'), { className: 'source', textContent: told.source }));
      cells.set(told.cell, cell);
      document.body.append(cell);
    } else if ('output' in told) {
      const place = document.createElement('div');
      cells.get(told.cell)?.append(place);
      const id = told.output.transient?.display_id;
      if (id) shown.set(id, place);
      void fill(place, told.output.data);
    } else if ('update' in told) {
      const place = shown.get(told.update.transient.display_id);
      if (place) void fill(place, told.update.data);
    }
  });
  host.dark(false);
  send('ready');
}
