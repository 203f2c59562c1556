// Module ids that don't depend on where the checkout lies: two builds give the same bytes.
module.exports = { optimization: { moduleIds: 'natural', chunkIds: 'natural' } };
