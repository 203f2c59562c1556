// Builds the one front end three ways. `node build.mjs` builds all; `node build.mjs pages` only dashboard and panel.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const packageFolder = join(here, '..', 'kitaru_nb');
const pages = join(packageFolder, 'static');
const extension = join(packageFolder, 'labextension');

const common = {
  absWorkingDir: here,
  bundle: true,
  format: 'esm',
  target: 'es2021',
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
  minify: true
};

/** Dashboard and panel: everything in one file each, with Preact in React's place. */
async function buildPages() {
  rmSync(pages, { recursive: true, force: true });
  mkdirSync(pages, { recursive: true });
  const alias = { react: 'preact/compat', 'react-dom': 'preact/compat', 'react-dom/client': 'preact/compat/client' };
  const define = { 'process.env.NODE_ENV': '"production"' };
  await build({ ...common, alias, define, entryPoints: { app: 'src/dashboard.tsx', widget: 'src/widget.tsx' }, outdir: pages });
  await build({ ...common, entryPoints: { app: 'style/dashboard.css', widget: 'style/widget.css' }, outdir: pages });
  cpSync(join(here, 'style', 'index.html'), join(pages, 'index.html'));
}

/** The JupyterLab extension: bundled here, then made a federated module with JupyterLab's own React and libraries. */
async function buildExtension() {
  const lib = join(here, 'lib');
  rmSync(lib, { recursive: true, force: true });
  rmSync(extension, { recursive: true, force: true });
  const external = ['react', 'react-dom', '@jupyterlab/*', '@lumino/*'];
  await build({ ...common, minify: false, external, entryPoints: { index: 'src/lab/index.tsx' }, outdir: lib });
  const builder = join(here, 'node_modules', '@jupyter', 'builder', 'lib', 'build-labextension.js');
  const core = join(here, 'node_modules', '@jupyterlab', 'core-meta', 'core.package.json');
  if (!existsSync(builder)) {
    throw new Error(`${builder} isn't there; run \`npm ci\` in ${here} first.`);
  }
  execFileSync(process.execPath, [builder, '--core-package-file', core, '.'], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'] });
  if (!readdirSync(join(extension, 'static')).some(name => name.startsWith('remoteEntry.'))) {
    throw new Error(`The builder left no remoteEntry in ${extension}.`);
  }
}

const wanted = process.argv[2] ?? 'all';
if (!['all', 'pages', 'lab'].includes(wanted)) {
  throw new Error(`${wanted} can't be built; expected all, pages or lab.`);
}
if (wanted !== 'lab') await buildPages();
if (wanted !== 'pages') await buildExtension();
