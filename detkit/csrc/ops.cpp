// The schema of every native op. Kernels register themselves in cpu/ and cuda/; that of nms on CUDA is Python
// around nms_mask (detkit/ops/suppression/hard.py).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(detkit, m) {
  // Greedy suppression, sorting included: indices of the kept boxes, by descending score, then index.
  m.def("nms(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold) -> Tensor");
  // The same on boxes that are sorted already: one bool a box, fixed size, no synchronisation.
  m.def("nms_mask(Tensor boxes, Tensor? groups, float iou_threshold) -> Tensor");
  // Soft suppression: indices and lowered scores, by descending lowered score, then index.
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, Tensor? groups, bool gaussian, float iou_threshold, "
      "float sigma, float min_score) -> (Tensor, Tensor)");
  // As nms, by IoU less the distance of the centres.
  m.def("diou_nms(Tensor boxes, Tensor scores, Tensor? groups, float threshold) -> Tensor");
  // Sum of the sigmoid focal loss over logits (..., K) with one label a row, -1 background, -2 ignored.
  // positive, negative: the weights of an entry that is its row's class and of one that is not.
  m.def("sigmoid_focal(Tensor logits, Tensor labels, float positive, float negative, float gamma) -> Tensor");
  // Its gradient in the dtype of the logits, times the scalar `grad`.
  m.def(
      "sigmoid_focal_backward(Tensor grad, Tensor logits, Tensor labels, float positive, float negative, "
      "float gamma) -> Tensor");
  // Lanes of the vectors that the CPU kernel was dispatched to: 16 AVX-512, 8 AVX2, 4 portable.
  m.def("cpu_lanes() -> int");
}
