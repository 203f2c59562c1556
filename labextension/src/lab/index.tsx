/** The JupyterLab extension. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { LabIcon, ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import { tellWhatGoesOn } from '../goingOn';
import type { Badge } from './cells';
import { labHost } from './host';
import { Notebooks } from './notebooks';
import { Panel, PanelState } from './Panel';
import { promote } from './promote';
import { explain } from './Why';

const ID = 'kitaru-nb:plugin';

const COMMANDS = { panel: 'kitaru:panel', inbox: 'kitaru:inbox', resume: 'kitaru:resume', promote: 'kitaru:promote' };

const icon = new LabIcon({
  name: 'kitaru:mark',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20" width="16" height="16">' +
    '<path class="jp-icon3" fill="none" stroke="#616161" stroke-width="2" stroke-linecap="round" d="M5 3v14M5 10h5a5 5 0 0 0 5-5M10 10a5 5 0 0 1 5 5"/>' +
    '<g class="jp-icon3" fill="#616161"><circle cx="5" cy="10" r="2.6"/><circle cx="15" cy="3.8" r="2.4"/><circle cx="15" cy="16.2" r="2.4"/></g></svg>'
});

interface Settings {
  badges: boolean;
  continueAfterAnswer: boolean;
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Checkpoints, lineage and questions of durable notebooks.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ISettingRegistry, ILayoutRestorer],
  activate
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  palette: ICommandPalette | null,
  registry: ISettingRegistry | null,
  restorer: ILayoutRestorer | null
): void {
  const settings: Settings = { badges: true, continueAfterAnswer: true };
  const state = new PanelState();
  const host = labHost(app.serviceManager.serverSettings, (execId, node) => {
    state.show(execId, node ?? null);
    app.shell.activateById(panel.id);
  });
  const panel = sidePanel(host, state);
  app.shell.add(panel, 'left', { rank: 550 });
  restorer?.add(panel, panel.id);

  const notebooks = new Notebooks(tracker, {
    host,
    explain: (badge, anchor, notebook) => why(badge, anchor, notebook, host),
    badges: () => settings.badges,
    continues: () => settings.continueAfterAnswer
  });
  tellWhatGoesOn((execId, waitId) => notebooks.goesOn(execId, waitId));
  const follow = (): void => {
    const notebook = notebooks.executionOf(tracker.currentWidget);
    if (notebook !== state.notebook) state.change({ notebook, node: null });
  };
  // A notebook becomes the current one before its file is read.
  const followOnceRead = (): void => {
    follow();
    void tracker.currentWidget?.context.ready.then(follow);
  };
  tracker.currentChanged.connect(followOnceRead);
  NotebookActions.executed.connect(() => setTimeout(follow, 0));
  void app.restored.then(followOnceRead);

  addCommands(app, tracker, state, follow);
  for (const command of Object.values(COMMANDS)) palette?.addItem({ command, category: 'kitaru' });
  void registry?.load(ID).then(
    found => {
      const take = (): void => {
        settings.badges = found.get('badges').composite !== false;
        settings.continueAfterAnswer = found.get('continueAfterAnswer').composite !== false;
        notebooks.refresh();
      };
      take();
      found.changed.connect(take);
    },
    (error: unknown) => console.warn('kitaru: its settings could not be read; the defaults hold.', error)
  );
}

function sidePanel(host: Parameters<typeof Panel>[0]['host'], state: PanelState): ReactWidget {
  const onPending = (count: number): void => {
    panel.title.dataset = count ? { 'kitaru-pending': count > 99 ? '99+' : String(count) } : {};
    panel.title.caption = count ? `kitaru: ${count} ${count === 1 ? 'question waits' : 'questions wait'} for an answer` : 'kitaru';
  };
  const panel = ReactWidget.create(<Panel host={host} state={state} onPending={onPending} />);
  panel.id = 'kitaru-panel';
  panel.title.icon = icon;
  panel.title.caption = 'kitaru';
  panel.addClass('kt-app');
  panel.addClass('kt-side');
  return panel;
}

function addCommands(app: JupyterFrontEnd, tracker: INotebookTracker, state: PanelState, follow: () => void): void {
  const hasNotebook = (): boolean => tracker.currentWidget !== null;
  const withNotebook = (act: (notebook: NotebookPanel) => Promise<unknown>) => async (): Promise<void> => {
    if (tracker.currentWidget) await act(tracker.currentWidget);
  };
  app.commands.addCommand(COMMANDS.panel, {
    label: 'Show checkpoints and lineage',
    caption: 'Show checkpoints and lineage of this notebook',
    icon,
    execute: () => {
      follow();
      state.change({ tab: 'notebook' });
      app.shell.activateById('kitaru-panel');
    }
  });
  app.commands.addCommand(COMMANDS.inbox, {
    label: 'Show questions that wait for an answer',
    execute: () => {
      state.change({ tab: 'inbox' });
      app.shell.activateById('kitaru-panel');
    }
  });
  app.commands.addCommand(COMMANDS.resume, {
    label: 'Resume',
    caption: 'Run all cells; finished checkpoints are reused',
    isEnabled: hasNotebook,
    execute: withNotebook(notebook => NotebookActions.runAll(notebook.content, notebook.sessionContext))
  });
  app.commands.addCommand(COMMANDS.promote, {
    label: 'Promote',
    caption: 'Make a version of this notebook that runs elsewhere',
    isEnabled: hasNotebook,
    execute: withNotebook(notebook => promote(app, notebook))
  });
}

function why(badge: Badge, anchor: HTMLElement, notebook: NotebookPanel, host: Parameters<typeof Panel>[0]['host']): void {
  explain(badge, anchor, {
    open: () => {
      const { recorded } = badge;
      if (recorded) host.open(recorded.execution, recorded.call ?? (recorded.wait ? `wait:${recorded.wait}` : undefined));
    },
    run: () => {
      const at = notebook.content.widgets.findIndex(cell => cell.node.contains(anchor));
      if (at >= 0) void NotebookActions.runCells(notebook.content, notebook.content.widgets.slice(at), notebook.sessionContext);
    }
  });
}
