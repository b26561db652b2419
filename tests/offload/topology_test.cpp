#include "offload/machine/topology.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace hearth;

TEST_CASE("cores and nodes of made-up machines") {
  struct Case {
    const char* description;
    int cores, nodes;
  };
  for (const Case& c : {Case{"numa:1 core:8 pu:2", 8, 1}, Case{"numa:2 core:4 pu:2", 8, 2},
                        Case{"pack:2 numa:4 core:3 pu:1", 24, 8}, Case{"core:6 pu:1", 6, 1}}) {
    CAPTURE(c.description);
    const Topology topology(c.description);
    CHECK(topology.cores() == c.cores);
    CHECK(topology.nodes() == c.nodes);
  }
}

TEST_CASE("a made-up machine binds nothing, and says what it does not understand") {
  const Topology topology("numa:2 core:2 pu:1");
  topology.bind_to_core(3);
  topology.bind_to_node(1);
  char bytes[64] = {};
  topology.bind_memory(bytes, sizeof bytes, 1);
  CHECK_THROWS_AS(Topology("two sockets"), Error);
}

TEST_CASE("this machine has a core and a node") {
  CHECK(Topology::of_this_machine().cores() >= 1);
  CHECK(Topology::of_this_machine().nodes() >= 1);
}
