/** JupyterLab as a host: requests with its session, cookies and XSRF token. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { Api } from '../api';
import type { Host } from '../hooks';
import { HttpTransport } from '../http';
import { Live } from '../live';

export function labHost(settings: ServerConnection.ISettings, open: Host['open']): Host {
  const transport = new HttpTransport({
    base: URLExt.join(settings.baseUrl, 'kitaru', 'api/'),
    fetch: (url, init) => ServerConnection.makeRequest(url, init, settings),
    // Pages that another site serves carry no cookie; theirs is the token.
    token: settings.appendToken ? settings.token : undefined
  });
  return { api: new Api(transport), live: new Live(transport), open };
}
