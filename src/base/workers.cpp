#include "base/workers.h"

#include <omp.h>

#include <algorithm>

namespace hearth {

void Workers::on_each_thread(const std::function<void(int)>& body) const {
#pragma omp parallel num_threads(threads_)
  body(omp_get_thread_num());
}

void Workers::run(int64_t count, int64_t grain, RangeBody body) const noexcept {
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (count + grain - 1) / grain;
  const int team = static_cast<int>(std::min<int64_t>(threads_, pieces));
#pragma omp parallel for num_threads(team) schedule(dynamic) if (team > 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = piece * grain;
    body(begin, std::min(begin + grain, count), omp_get_thread_num());
  }
}

}  // namespace hearth
